"""What schemathesis must know to try the API: how a tar archive is sent, and that unknown query parameters are ignored, as clients of
OpenFaaS expect, so that none of them is an error."""
import schemathesis

KNOWN = {"namespace", "usage", "name", "instance", "tail", "follow", "since", "reference", "kind", "function", "failed", "dry", "untagged",
         "grace"}


@schemathesis.serializer("application/x-tar")
def tar(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def filter_query(context, query):
    return not query or set(query) <= KNOWN
