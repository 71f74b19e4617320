# Calls function/handler.rb for each request. It listens for the watchdog on 127.0.0.1:5000: HTTP/1.1, a thread for
# each connection.
require "json"
require "socket"
require "uri"
require_relative "function/handler"

# One call.
Event = Struct.new(:method, :path, :query, :headers, :body)

# The next request of a connection; nil at its end.
def read_event(socket)
  line = socket.gets or return
  method, target = line.split
  headers = {}
  while (line = socket.gets) && !(line = line.chomp).empty?
    name, value = line.split(":", 2)
    headers[name.downcase] = value.to_s.strip
  end
  path, query = target.split("?", 2)
  body = headers["transfer-encoding"].to_s.include?("chunked") ? read_chunks(socket) : socket.read(headers["content-length"].to_i)
  Event.new(method, path, URI.decode_www_form(query.to_s).to_h, headers, body)
end

def read_chunks(socket)
  body = +"".b
  until (size = socket.gets.to_i(16)).zero?
    body << socket.read(size)
    socket.gets
  end
  nil until socket.gets.to_s.chomp.empty?
  body
end

# What a handler returned, as a status, headers and a body.
def answer_of(returned)
  whole = returned.is_a?(Hash) && (returned.key?(:status) || returned.key?(:body))
  status = whole ? returned.fetch(:status, 200) : 200
  headers = whole ? returned.fetch(:headers, {}).dup : {}
  body = whole ? returned[:body] : returned
  kind = "text/plain; charset=utf-8"
  case body
  when nil, Enumerator then nil
  when String then kind = "application/octet-stream" if body.encoding == Encoding::BINARY
  else
    body = JSON.generate(body)
    kind = "application/json"
  end
  headers["Content-Type"] = kind unless body.nil? || headers.keys.any? { |name| name.downcase == "content-type" }
  [status, headers, body.nil? ? "" : body]
end

def write_answer(socket, status, headers, body, is_head)
  head = headers.map { |name, value| "#{name}: #{value}\r\n" }.join
  if body.is_a?(Enumerator)
    socket.write("HTTP/1.1 #{status} -\r\n#{head}Transfer-Encoding: chunked\r\n\r\n")
    body.each do |piece|
      piece = piece.to_s.b
      socket.write(piece.bytesize.to_s(16), "\r\n", piece, "\r\n") unless piece.empty?
    end
    return socket.write("0\r\n\r\n")
  end
  has_body = ![204, 304].include?(status)
  head << "Content-Length: #{body.bytesize}\r\n" if has_body
  socket.write("HTTP/1.1 #{status} -\r\n#{head}\r\n", has_body && !is_head ? body : "")
end

def serve(socket)
  socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
  while (event = read_event(socket))
    begin
      answer = answer_of(handle(event))
    rescue StandardError => e
      warn e.full_message(highlight: false)
      answer = [500, { "Content-Type" => "text/plain" }, "the handler failed; its log says why\n"]
    end
    write_answer(socket, *answer, event.method == "HEAD")
  end
rescue SystemCallError, IOError
  # The watchdog left.
ensure
  socket.close
end

if $PROGRAM_NAME == __FILE__
  $stdout.sync = true
  trap("TERM") { exit }
  Socket.tcp_server_loop("127.0.0.1", ENV.fetch("http_port", "5000").to_i) do |socket, _|
    Thread.new { serve(socket) }
  end
end
