import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import function.Handler;
import function.Request;
import function.Response;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Executors;

/** Calls function/Handler.java for each request. It listens for the watchdog on 127.0.0.1:5000. */
class Main {
    public static void main(String[] words) throws IOException {
        int port = Integer.parseInt(System.getenv().getOrDefault("http_port", "5000"));
        System.setProperty("sun.net.httpserver.nodelay", "true");
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 1024);
        server.setExecutor(Executors.newCachedThreadPool());
        Handler handler = new Handler();
        server.createContext("/", exchange -> serve(handler, exchange));
        server.start();
    }

    private static void serve(Handler handler, HttpExchange exchange) throws IOException {
        try (exchange) {
            Response response;
            try {
                response = handler.handle(read(exchange));
            } catch (Exception failed) {
                failed.printStackTrace();
                response = Response.text("the handler failed; its log says why\n").withStatus(500);
            }
            response.headers.forEach(exchange.getResponseHeaders()::set);
            boolean hasNone = exchange.getRequestMethod().equals("HEAD") || response.status == 204 || response.status == 304;
            if (response.body != null) {
                long length = hasNone || response.body.length == 0 ? -1 : response.body.length;
                exchange.sendResponseHeaders(response.status, length);
                if (length > 0) {
                    exchange.getResponseBody().write(response.body);
                }
                return;
            }
            exchange.sendResponseHeaders(response.status, hasNone ? -1 : 0);
            OutputStream out = exchange.getResponseBody();
            while (!hasNone && response.pieces.hasNext()) {
                out.write(response.pieces.next());
                out.flush();
            }
        }
    }

    private static Request read(HttpExchange exchange) throws IOException {
        Map<String, String> headers = new LinkedHashMap<>();
        exchange.getRequestHeaders().forEach(
                (name, values) -> headers.put(name.toLowerCase(Locale.ROOT), String.join(", ", values)));
        String query = exchange.getRequestURI().getRawQuery();
        return new Request(
                exchange.getRequestMethod(),
                exchange.getRequestURI().getPath(),
                query == null ? "" : query,
                headers,
                exchange.getRequestBody().readAllBytes());
    }
}
