package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"
)

// How long the gateway may take until something is as it should be.
const patience = 30 * time.Second

// passed tells of a check that found no difference.
func passed(what string) {
	fmt.Println("ok      ", what)
}

// differs tells of the first difference and ends the program.
func differs(what string, format string, more ...any) {
	fmt.Println("DIFFERS ", what+":", fmt.Sprintf(format, more...))
	os.Exit(1)
}

// done checks that something worked.
func done(what string, err error) {
	if err != nil {
		differs(what, "%v", err)
	}
	passed(what)
}

// accepted checks that a change was answered by one status and no error.
func accepted(what string, status, wanted int, err error) {
	if err != nil {
		differs(what, "%v", err)
	}
	same(what, status, wanted)
}

// same checks that two values are equal all the way down.
func same(what string, got, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		differs(what, "got %#v, wanted %#v", got, wanted)
	}
	passed(what)
}

// holds checks a condition; got is what is shown if it does not hold.
func holds(what string, condition bool, got any) {
	if !condition {
		differs(what, "got %#v", got)
	}
	passed(what)
}

// refused checks that there is an error and that it has these words, which are the client's or the gateway's.
func refused(what string, err error, words string) {
	if err == nil {
		differs(what, "it was not refused")
	}
	if !strings.Contains(err.Error(), words) {
		differs(what, "refused by %q, which does not say %q", err, words)
	}
	passed(what)
}

// becomes waits until a condition holds.
func becomes(what string, holds func() bool) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			passed(what)
			return
		}
	}
	differs(what, "not within %v", patience)
}
