package function;

import java.nio.charset.StandardCharsets;

class HandlerTest {
    public static void main(String[] words) {
        byte[] answer = new Handler().handle(Request.of("Ada\n")).body;
        String text = new String(answer, StandardCharsets.UTF_8);
        if (!text.equals("Hello, Ada!\n")) {
            throw new AssertionError("wrong: " + text);
        }
        System.out.println("ok");
    }
}
