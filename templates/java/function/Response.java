package function;

import java.nio.charset.StandardCharsets;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;

/** An answer: a whole body, or pieces that are sent as they come. */
public final class Response {
    public int status = 200;
    public final Map<String, String> headers = new LinkedHashMap<>();
    public final byte[] body;
    public final Iterator<byte[]> pieces;

    private Response(String kind, byte[] body, Iterator<byte[]> pieces) {
        headers.put("Content-Type", kind);
        this.body = body;
        this.pieces = pieces;
    }

    public static Response text(String text) {
        return new Response("text/plain; charset=utf-8", text.getBytes(StandardCharsets.UTF_8), null);
    }

    public static Response json(String json) {
        return new Response("application/json", json.getBytes(StandardCharsets.UTF_8), null);
    }

    public static Response bytes(byte[] bytes) {
        return new Response("application/octet-stream", bytes, null);
    }

    public static Response pieces(Iterator<byte[]> pieces) {
        return new Response("text/plain; charset=utf-8", null, pieces);
    }

    public Response withStatus(int status) {
        this.status = status;
        return this;
    }

    public Response withHeader(String name, String value) {
        headers.put(name, value);
        return this;
    }
}
