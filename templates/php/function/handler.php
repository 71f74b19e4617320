<?php
// Answers one call. $event has method, path, query, headers (names in small letters) and body. Return text, anything
// that is JSON, or ['statusCode' => 201, 'headers' => [...], 'body' => ...]. A generator's pieces are sent as they come:
//
//   return (function () { for ($number = 0; $number < 10; $number++) yield "$number\n"; })();
//
// To be called without anybody waiting: pinnace invoke --async NAME, or POST /async-function/NAME; the answer then goes
// to the URL in the header X-Callback-Url.
return function ($event) {
    $name = trim($event->body) ?: 'world';
    return "Hello, $name!\n";
};
