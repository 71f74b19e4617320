#!/usr/bin/env bash
# Answers one call: its body is standard input, what is written to standard output is the answer, sent as it is
# written. Http_Method, Http_Path, Http_Query and the headers (Http_Content_Type) are variables. What is written to
# standard error is the log, and an exit code other than 0 is a failure.
#
# To be called without anybody waiting: pinnace invoke --async NAME, or POST /async-function/NAME; the answer then
# goes to the URL in the header X-Callback-Url.
set -euo pipefail

name=$(cat)
echo "Hello, ${name:-world}!"
