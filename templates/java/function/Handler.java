package function;

/**
 * Answers calls; there is one of it for all of them.
 *
 * <p>Pieces of an answer are sent as they come:
 * {@code Response.pieces(IntStream.range(0, 10).mapToObj(n -> (n + "\n").getBytes()).iterator())}.
 *
 * <p>To be called without anybody waiting: pinnace invoke --async NAME, or POST /async-function/NAME; the answer then
 * goes to the URL in the header X-Callback-Url.
 */
public final class Handler {
    public Response handle(Request request) {
        String name = request.text().isBlank() ? "world" : request.text().strip();
        return Response.text("Hello, " + name + "!\n");
    }
}
