<?php
$answer = (require __DIR__ . '/handler.php')((object) ['body' => 'Ada']);
if ($answer !== "Hello, Ada!\n") {
    fwrite(STDERR, "wrong: $answer\n");
    exit(1);
}
echo "ok\n";
