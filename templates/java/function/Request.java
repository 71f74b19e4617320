package function;

import java.nio.charset.StandardCharsets;
import java.util.Map;

/** A call; the names of its headers are in small letters. */
public record Request(String method, String path, String query, Map<String, String> headers, byte[] body) {
    /** A call with this body and nothing else, as tests want it. */
    public static Request of(String body) {
        return new Request("POST", "/", "", Map.of(), body.getBytes(StandardCharsets.UTF_8));
    }

    /** The body as text. */
    public String text() {
        return new String(body, StandardCharsets.UTF_8);
    }
}
