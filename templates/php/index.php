<?php
// Calls function/handler.php for each request that PHP's own server takes for the watchdog.

/** One call. */
final class Event
{
    public function __construct(
        public readonly string $method,
        public readonly string $path,
        public readonly array $query,
        public readonly array $headers,
        public readonly string $body,
    ) {
    }

    public static function current(): self
    {
        $headers = array_change_key_case(getallheaders(), CASE_LOWER);
        $path = strtok($_SERVER['REQUEST_URI'], '?');
        return new self($_SERVER['REQUEST_METHOD'], $path, $_GET, $headers, file_get_contents('php://input'));
    }
}

/** Sends what a handler returned. */
function answer(mixed $returned): void
{
    $isWhole = is_array($returned) && (isset($returned['statusCode']) || array_key_exists('body', $returned));
    $body = $isWhole ? ($returned['body'] ?? null) : $returned;
    http_response_code($isWhole ? ($returned['statusCode'] ?? 200) : 200);
    $kind = is_string($body) || is_iterable($body) && !is_array($body) ? 'text/plain; charset=utf-8' : 'application/json';
    header("Content-Type: $kind");
    foreach ($isWhole ? ($returned['headers'] ?? []) : [] as $name => $value) {
        header("$name: $value");
    }
    if ($body === null) {
        return;
    }
    if ($body instanceof Traversable) {
        foreach ($body as $piece) {
            echo $piece;
            flush();
        }
        return;
    }
    $bytes = is_string($body) ? $body : json_encode($body, JSON_THROW_ON_ERROR);
    header('Content-Length: ' . strlen($bytes));
    echo $bytes;
}

ini_set('display_errors', 'stderr');
if (is_file(__DIR__ . '/function/vendor/autoload.php')) {
    require __DIR__ . '/function/vendor/autoload.php';
}
try {
    answer((require __DIR__ . '/function/handler.php')(Event::current()));
} catch (Throwable $error) {
    file_put_contents('php://stderr', "$error\n");
    answer(['statusCode' => 500, 'body' => "the handler failed; its log says why\n"]);
}
