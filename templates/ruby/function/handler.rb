# Answers one call. event has method, path, query, headers (names in small letters) and body. Return text, binary
# strings, anything that is JSON, or { status: 201, headers: {...}, body: ... }. An enumerator's pieces are sent as
# they come:
#
#   Enumerator.new { |pieces| 10.times { |number| pieces << "#{number}\n" } }
#
# To be called without anybody waiting: pinnace invoke --async NAME, or POST /async-function/NAME; the answer then goes
# to the URL in the header X-Callback-Url.
def handle(event)
  name = event.body.to_s.strip
  name = "world" if name.empty?
  "Hello, #{name}!\n"
end
