import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;

/** Fetches the jars of a list from Maven Central, or from the repository that MAVEN_REPOSITORY names. */
class Fetch {
    public static void main(String[] words) throws IOException {
        String given = System.getenv("MAVEN_REPOSITORY");
        String repository = given == null ? "https://repo.maven.apache.org/maven2" : given;
        Path folder = Files.createDirectories(Path.of(words[1]));
        for (String line : Files.readAllLines(Path.of(words[0]))) {
            String entry = line.split("#", 2)[0].trim();
            if (entry.isEmpty()) {
                continue;
            }
            String[] part = entry.split(":");
            if (part.length != 3) {
                System.err.println(entry + ": write it as group:artifact:version");
                System.exit(1);
            }
            String jar = part[1] + "-" + part[2] + ".jar";
            String path = part[0].replace('.', '/') + "/" + part[1] + "/" + part[2] + "/" + jar;
            System.out.println("fetching " + jar);
            try (InputStream content = new URL(repository + "/" + path).openStream()) {
                Files.copy(content, folder.resolve(jar));
            }
        }
    }
}
