package main

import "github.com/openfaas/faas-provider/types"

// secrets goes through the life of a secret and has a function show its value.
func (s session) secrets() {
	list, err := s.GetSecrets(s, other)
	done("secrets are listed", err)
	same("there are none", list, []types.Secret{})

	text := types.Secret{Name: "text", Namespace: other, Value: "first"}
	status, err := s.CreateSecret(s, text)
	accepted("a secret is created", status, 202, err)
	status, err = s.CreateSecret(s, text)
	refused("not twice", err, "already exists")
	same("a second time is a conflict", status, 409)
	raw := types.Secret{Name: "raw.bytes", Namespace: other, Value: "not this", RawValue: []byte("\x00\xff\n")}
	status, err = s.CreateSecret(s, raw)
	accepted("a secret of bytes is created", status, 202, err)
	list, err = s.GetSecrets(s, other)
	done("secrets are listed again", err)
	same("with their names and no values", list, []types.Secret{
		{Name: raw.Name, Namespace: other}, {Name: text.Name, Namespace: other},
	})
	list, err = s.GetSecrets(s, "")
	done("secrets of the default namespace are listed", err)
	same("those of another are not among them", list, []types.Secret{})

	reader := types.FunctionDeployment{
		Service: "reader", Namespace: other, Image: s.image,
		EnvProcess: "cat /var/openfaas/secrets/text /var/openfaas/secrets/raw.bytes",
		Secrets:    []string{text.Name, raw.Name},
	}
	status, err = s.Deploy(s, reader)
	accepted("a function with secrets is deployed", status, 202, err)
	s.serves(reader.Service, other)
	same("it sees them", s.call("reader", other, "GET", "", ""), answered{200, "first\x00\xff\n"})
	text.Value = "second"
	status, err = s.UpdateSecret(s, text)
	accepted("a secret is updated", status, 202, err)
	same("a function sees that too", s.call("reader", other, "GET", "", ""), answered{200, "second\x00\xff\n"})

	reader.Namespace = home
	status, err = s.Deploy(s, reader)
	refused("no function gets the secrets of another namespace", err, "unable to fetch secrets")
	same("it is the sender's fault", status, 400)
	status, err = s.UpdateSecret(s, types.Secret{Name: "nothing", Namespace: other, Value: "x"})
	refused("an unknown secret is not updated", err, "not found")
	same("it is not found", status, 404)
	status, err = s.CreateSecret(s, types.Secret{Name: "../up", Namespace: other, Value: "x"})
	refused("a name that is none is refused", err, "../up")
	same("it cannot be processed", status, 422)

	done("the function is deleted", s.DeleteFunction(s, reader.Service, other))
	for _, secret := range []types.Secret{text, raw} {
		done("a secret is deleted", s.DeleteSecret(s, secret.Name, other))
	}
	refused("not twice", s.DeleteSecret(s, text.Name, other), "not found")
	list, err = s.GetSecrets(s, other)
	done("secrets are listed at the end", err)
	same("none is left", list, []types.Secret{})
}
