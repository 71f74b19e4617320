package main

import (
	"time"

	"github.com/openfaas/faas-provider/types"
)

// deployed deploys a function and waits until it serves.
func (s session) deployed(name, namespace, command string) types.FunctionDeployment {
	function := types.FunctionDeployment{
		Service: name, Namespace: namespace, Image: s.image, EnvProcess: command,
	}
	status, err := s.Deploy(s, function)
	accepted(name+"."+namespace+" is deployed", status, 202, err)
	s.serves(name, namespace)
	return function
}

func (s session) serves(name, namespace string) {
	becomes(name+"."+namespace+" serves", func() bool {
		status, err := s.GetFunction(s, name, namespace)
		return err == nil && status.AvailableReplicas > 0
	})
}

// functions goes through the life of a function, whose status must have what was sent and nothing that was not.
func (s session) functions() {
	list, err := s.GetFunctions(s, home)
	done("functions are listed", err)
	same("there are none", list, []types.FunctionStatus{})

	before := time.Now().Add(-time.Minute)
	full := types.FunctionDeployment{
		Service:                "full",
		Namespace:              other,
		Image:                  s.image,
		EnvProcess:             "cat",
		EnvVars:                map[string]string{"mode": "serializing", "empty": ""},
		Constraints:            []string{"b=2", "a=1"},
		Labels:                 &map[string]string{"team": "a"},
		Annotations:            &map[string]string{"topic": "x,y", "json": `{"a":"ä\n"}`},
		Limits:                 &types.FunctionResources{Memory: "64Mi", CPU: "500m"},
		Requests:               &types.FunctionResources{Memory: "5Mi"},
		ReadOnlyRootFilesystem: true,
	}
	status, err := s.Update(s, full)
	refused("a function that is not there is not updated", err, "is not deployed")
	same("it is not found, which makes clients create it", status, 404)
	status, err = s.Deploy(s, full)
	accepted("a function is deployed", status, 202, err)
	_, err = s.GetFunction(s, full.Service, other)
	done("it is there at once", err)
	s.serves(full.Service, other)

	read, err := s.GetFunction(s, full.Service, other)
	done("a function is read", err)
	created := read.CreatedAt
	holds("it has the time of its deploy", created.After(before) && created.Before(time.Now().Add(time.Minute)), created)
	same("its status has all that was sent", read, statusOf(full, read))
	list, err = s.GetFunctions(s, other)
	done("functions of a namespace are listed", err)
	same("the list has the status", list, []types.FunctionStatus{read})

	plain := s.deployed("plain", "", "env")
	read, err = s.GetFunction(s, "plain", "")
	done("a function of the default namespace is read", err)
	same("what was not sent is not there", read, statusOf(plain, read))
	list, err = s.GetFunctions(s, "")
	done("functions of the default namespace are listed", err)
	same("others are not among them", list, []types.FunctionStatus{read})

	status, err = s.Deploy(s, plain)
	refused("a function is not deployed twice", err, "exists already")
	same("a second deploy is a conflict", status, 409)
	plain.EnvVars = map[string]string{"colour": "blue"}
	status, err = s.Update(s, plain)
	accepted("a function is updated", status, 202, err)
	read, err = s.GetFunction(s, "plain", home)
	done("it is read again", err)
	same("it has what was sent last", read.EnvVars, plain.EnvVars)

	status, err = s.Deploy(s, types.FunctionDeployment{Service: "Bad_Name", Image: s.image})
	refused("a name that is none is refused", err, "Bad_Name")
	same("it is the sender's fault", status, 400)
	status, err = s.Deploy(s, types.FunctionDeployment{Service: "a", Namespace: "nowhere", Image: s.image})
	refused("an unknown namespace is refused", err, "nowhere")
	same("that too is the sender's fault", status, 400)

	done("a function is deleted", s.DeleteFunction(s, "plain", ""))
	refused("not twice", s.DeleteFunction(s, "plain", ""), "not found")
	refused("nor in a namespace where it is not", s.DeleteFunction(s, "full", home), "not found")
	done("a function of a namespace is deleted", s.DeleteFunction(s, "full", other))
	list, err = s.GetFunctions(s, other)
	done("functions are listed at the end", err)
	same("none is left", list, []types.FunctionStatus{})
}

// statusOf is what is to be read of a deployed function with one replica, which was made when this status says.
func statusOf(sent types.FunctionDeployment, read types.FunctionStatus) types.FunctionStatus {
	labels := map[string]string{"faas_function": sent.Service}
	if sent.Labels != nil {
		for key, value := range *sent.Labels {
			labels[key] = value
		}
	}
	annotations := map[string]string{}
	if sent.Annotations != nil {
		annotations = *sent.Annotations
	}
	namespace := sent.Namespace
	if namespace == "" {
		namespace = home
	}
	return types.FunctionStatus{
		Name:                   sent.Service,
		Image:                  sent.Image,
		Namespace:              namespace,
		EnvProcess:             sent.EnvProcess,
		EnvVars:                sent.EnvVars,
		Constraints:            sent.Constraints,
		Secrets:                sent.Secrets,
		Labels:                 &labels,
		Annotations:            &annotations,
		Limits:                 sent.Limits,
		Requests:               sent.Requests,
		ReadOnlyRootFilesystem: sent.ReadOnlyRootFilesystem,
		Replicas:               1,
		AvailableReplicas:      1,
		CreatedAt:              read.CreatedAt,
	}
}

// scaling takes a function to zero, has a call bring it back, and sets another number.
func (s session) scaling() {
	s.deployed("scaled", other, "cat")
	done("a function is scaled to zero", s.ScaleFunction(s, "scaled", other, 0))
	read, err := s.GetFunction(s, "scaled", other)
	done("it is read at once", err)
	same("no replica is wanted any more", read.Replicas, uint64(0))
	becomes("none is left", func() bool {
		read, err := s.GetFunction(s, "scaled", other)
		return err == nil && read.AvailableReplicas == 0
	})
	answer := s.call("scaled", other, "POST", "", "woken")
	same("a call of it waits for a replica", answer, answered{200, "woken"})
	done("it is scaled to two", s.ScaleFunction(s, "scaled", other, 2))
	becomes("there are two", func() bool {
		read, err := s.GetFunction(s, "scaled", other)
		return err == nil && read.Replicas == 2 && read.AvailableReplicas == 2
	})
	refused("an unknown function is not scaled", s.ScaleFunction(s, "nobody", "", 1), "not found")
	done("it is deleted", s.DeleteFunction(s, "scaled", other))
}
