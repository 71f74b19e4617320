package main

import (
	"context"
	"strings"
	"time"

	"github.com/openfaas/faas-provider/logs"
)

// logs reads what a function says: to the end, the last lines, since a time, and as it is said.
func (s session) logs() {
	s.deployed("talker", other, "ls /nowhere-at-all")
	told := func(message logs.Message) bool { return strings.Contains(message.Text, "nowhere-at-all") }
	s.call("talker", other, "POST", "", "")

	var lines []logs.Message
	becomes("a function's words are in its log", func() bool {
		lines = nil
		stream, err := s.GetLogs(s, "talker", other, false, 0, nil)
		if err != nil {
			return false
		}
		found := false
		for message := range stream {
			lines, found = append(lines, message), found || told(message)
		}
		return found
	})
	for _, line := range lines {
		ok := line.Name == "talker" && line.Namespace == other && line.Instance != "" &&
			time.Since(line.Timestamp) < time.Hour
		holds("a line says whose it is and when it was said", ok, line)
	}

	stream, err := s.GetLogs(s, "talker", other, false, 1, nil)
	done("the last line is asked for", err)
	same("one line comes", len(drained(stream)), 1)
	later := time.Now().Add(time.Hour)
	stream, err = s.GetLogs(s, "talker", other, false, -1, &later)
	done("lines since a time are asked for", err)
	same("none is of the future", len(drained(stream)), 0)

	following, leave := context.WithCancel(s)
	stream, err = s.GetLogs(following, "talker", other, true, 1, nil)
	done("a log is followed", err)
	<-stream
	s.call("talker", other, "POST", "", "")
	arrived := make(chan bool)
	go func() {
		for message := range stream {
			if told(message) {
				arrived <- true
				return
			}
		}
	}()
	select {
	case <-arrived:
		passed("what is said then arrives")
	case <-time.After(patience):
		differs("what is said then arrives", "not within %v", patience)
	}
	leave()

	_, err = s.GetLogs(s, "nobody", "", false, 0, nil)
	refused("an unknown function has no log", err, "not found")
	done("it is deleted", s.DeleteFunction(s, "talker", other))
}

func drained(stream <-chan logs.Message) (lines []logs.Message) {
	for message := range stream {
		lines = append(lines, message)
	}
	return lines
}
