package main

import (
	"io"
	"net/http"
	"strings"

	"github.com/openfaas/faas-provider/types"
)

// answered is what a caller sees of an answer.
type answered struct {
	status int
	body   string
}

// call calls a function; query is without its question mark.
func (s session) call(name, namespace, method, query, body string) answered {
	answer := s.send(name, namespace, false, method, query, body)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		differs("the answer of "+name+" is read", "%v", err)
	}
	return answered{answer.StatusCode, string(text)}
}

func (s session) send(name, namespace string, async bool, method, query, body string) *http.Response {
	request, err := http.NewRequest(method, "?"+query, strings.NewReader(body))
	if err != nil {
		differs("a request for "+name+" is made", "%v", err)
	}
	answer, err := s.InvokeFunction(name, namespace, async, false, request)
	if err != nil {
		differs(name+" is called", "%v", err)
	}
	return answer
}

// calls calls functions in both namespaces by all methods.
func (s session) calls(async bool) {
	s.deployed("env", "", "env")
	s.deployed("echo", other, "cat")
	body := strings.Repeat("0123456789abcdef", 1<<16)
	holds("a body comes back whole", s.call("echo", other, "POST", "", body) == answered{200, body}, len(body))
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		answer := s.call("env", "", method, "a=1&b=%2F", "")
		same("a call by "+method+" is answered", answer.status, 200)
		lines := strings.Split(answer.body, "\n")
		for _, line := range []string{"Http_Method=" + method, "Http_Query=a=1&b=%2F", "Http_Path=/"} {
			holds("the function is told "+line, contains(lines, line), lines)
		}
	}
	answer := s.send("echo", other, false, "POST", "", "")
	answer.Body.Close()
	for _, header := range []string{"X-Call-Id", "X-Start-Time"} {
		holds("an answer has "+header, answer.Header.Get(header) != "", answer.Header)
	}
	same("an unknown function is not found", s.call("nobody", "", "POST", "", "").status, 404)
	same("nor one of another namespace", s.call("echo", "", "POST", "", "").status, 404)
	if async {
		answer := s.send("echo", other, true, "POST", "", "later")
		answer.Body.Close()
		same("a call is taken for later", answer.StatusCode, 202)
		holds("it has an id", answer.Header.Get("X-Call-Id") != "", answer.Header)
	}

	becomes("calls are counted", func() bool {
		list, err := s.GetFunctions(s, "")
		return err == nil && len(list) == 1 && list[0].InvocationCount >= 5
	})
	done("a function is deleted", s.DeleteFunction(s, "env", ""))
	done("a namespace is deleted with what is in it", s.DeleteNamespace(s, other))
	same("its function is not found any more", s.call("echo", other, "POST", "", "").status, 404)
}

func contains(lines []string, wanted string) bool {
	for _, line := range lines {
		if line == wanted {
			return true
		}
	}
	return false
}

// strangers is refused everywhere. Where this client does not look at the status it cannot read the answer.
func (s session) strangers() {
	const words, unread = "unauthorized", "invalid credentials"
	function := types.FunctionDeployment{Service: "a", Image: s.image}
	secret := types.Secret{Name: "a", Value: "b"}
	namespace := types.FunctionNamespace{Name: "a"}

	_, err := s.GetInfo(s)
	refused("a stranger reads no info", err, unread)
	_, err = s.GetFunctions(s, "")
	refused("lists no functions", err, unread)
	_, err = s.GetFunction(s, "a", "")
	refused("reads no function", err, unread)
	_, err = s.Deploy(s, function)
	refused("deploys nothing", err, words)
	_, err = s.Update(s, function)
	refused("updates nothing", err, words)
	refused("scales nothing", s.ScaleFunction(s, "a", "", 1), words)
	refused("deletes nothing", s.DeleteFunction(s, "a", ""), words)
	_, err = s.GetLogs(s, "a", "", false, 0, nil)
	refused("reads no logs", err, words)
	_, err = s.GetSecrets(s, "")
	refused("lists no secrets", err, unread)
	_, err = s.CreateSecret(s, secret)
	refused("creates no secret", err, words)
	_, err = s.UpdateSecret(s, secret)
	refused("updates no secret", err, words)
	refused("deletes no secret", s.DeleteSecret(s, "a", ""), words)
	_, err = s.GetNamespaces(s)
	refused("lists no namespaces", err, "authoriz")
	_, err = s.GetNamespace(s, "a")
	refused("reads no namespace", err, words)
	_, err = s.CreateNamespace(s, namespace)
	refused("creates no namespace", err, words)
	_, err = s.UpdateNamespace(s, namespace)
	refused("updates no namespace", err, words)
	refused("deletes no namespace", s.DeleteNamespace(s, "a"), words)
	same("but may call", s.call("nobody", "", "POST", "", "").status, 404)
}
