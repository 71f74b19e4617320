package function

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Handle answers one call: method, path, query, headers and body are the request's, as in any Go server.
//
// What is written is sent as it comes if it is flushed:
//
//	for number := 0; number < 10; number++ {
//		fmt.Fprintln(w, number)
//		w.(http.Flusher).Flush()
//	}
//
// To be called without anybody waiting: pinnace invoke --async NAME, or POST /async-function/NAME; the answer then
// goes to the URL in the header X-Callback-Url.
func Handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name := strings.TrimSpace(string(body))
	if name == "" {
		name = "world"
	}
	fmt.Fprintf(w, "Hello, %s!\n", name)
}
