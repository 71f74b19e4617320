package function

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestGreetsWhoeverIsNamed(t *testing.T) {
	answer := httptest.NewRecorder()
	Handle(answer, httptest.NewRequest("POST", "/", strings.NewReader("Ada\n")))
	if got := answer.Body.String(); got != "Hello, Ada!\n" {
		t.Errorf("got %q", got)
	}
}
