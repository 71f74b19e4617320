<?php
$answer = (require __DIR__ . '/handler.php')((object) ['body' => "Ada\n"]);
if ($answer !== "Hello, Ada!\n") {
    fwrite(STDERR, "wrong: $answer\n");
    exit(1);
}
echo "ok\n";
