def handle(event, context):
    """Answers one call.

    event has method, path, query, headers and body (bytes). Return text, bytes, anything that is JSON, or
    {"statusCode": 201, "headers": {...}, "body": ...}. A generator's pieces are sent as they come:

        def count():
            for number in range(10):
                yield f"{number}\\n"
        return count()

    To be called without anybody waiting: pinnace invoke --async NAME, or POST /async-function/NAME; the
    answer then goes to the URL in the header X-Callback-Url.
    """
    name = event.body.decode().strip() or "world"
    return f"Hello, {name}!\n"
