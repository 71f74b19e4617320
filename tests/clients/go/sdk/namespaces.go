package main

import (
	"slices"

	"github.com/openfaas/faas-provider/types"
)

const (
	// The namespace that is always there.
	home = "openfaas-fn"
	// One that is made and removed.
	other = "second"
)

// namespaces goes through the life of a namespace; the client itself marks what it makes as OpenFaaS's.
func (s session) namespaces() {
	names, err := s.GetNamespaces(s)
	done("namespaces are listed", err)
	same("only the default one is there", names, []string{home})

	made := types.FunctionNamespace{Name: other, Annotations: map[string]string{"owner": "tests"}}
	status, err := s.CreateNamespace(s, made)
	accepted("a namespace is created", status, 201, err)
	status, err = s.CreateNamespace(s, made)
	refused("not twice", err, "already exists")
	same("a second time is a conflict", status, 409)
	names, err = s.GetNamespaces(s)
	done("namespaces are listed again", err)
	holds("the new one is listed", slices.Contains(names, other), names)

	read, err := s.GetNamespace(s, other)
	done("a namespace is read", err)
	marked := types.FunctionNamespace{
		Name:        other,
		Labels:      map[string]string{"openfaas": "1"},
		Annotations: map[string]string{"openfaas": "1", "owner": "tests"},
	}
	same("it is as it was sent", read, marked)

	changed := types.FunctionNamespace{Name: other, Labels: map[string]string{"team": "a"}}
	status, err = s.UpdateNamespace(s, changed)
	accepted("a namespace is updated", status, 202, err)
	read, err = s.GetNamespace(s, other)
	done("it is read again", err)
	changed.Labels["openfaas"], changed.Annotations = "1", map[string]string{"openfaas": "1"}
	same("it is as it was sent last", read, changed)

	status, err = s.UpdateNamespace(s, types.FunctionNamespace{Name: "nowhere"})
	refused("an unknown namespace is not updated", err, "not found")
	same("it is not found", status, 404)
	_, err = s.GetNamespace(s, "nowhere")
	refused("an unknown namespace is not read", err, "not found")
	refused("an unknown namespace is not deleted", s.DeleteNamespace(s, "nowhere"), "not found")
	refused("the default namespace is not deleted", s.DeleteNamespace(s, home), "default")

	status, err = s.CreateNamespace(s, types.FunctionNamespace{Name: "passing"})
	accepted("another one is created", status, 201, err)
	done("a namespace is deleted", s.DeleteNamespace(s, "passing"))
	_, err = s.GetNamespace(s, "passing")
	refused("it is gone", err, "not found")
}
