require_relative "handler"

event = Struct.new(:body).new("Ada\n")
answer = handle(event)
abort "wrong: #{answer.inspect}" unless answer == "Hello, Ada!\n"
puts "ok"
