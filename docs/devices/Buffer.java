import java.io.*;
import java.net.URI;
import java.net.http.*;
import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.regex.Pattern;
import java.util.zip.GZIPOutputStream;
import javax.net.ssl.*;

/**
 * Buffers lines of standard input as readings, and posts what waits in one request, gzipped, until each is safe or refused for good.
 *
 * <pre>java Buffer.java https://ingest.example.com:8443 ca.pem device.pem device.key boot-17 &lt;readings</pre>
 *
 * The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or
 * files are wrong.
 */
public class Buffer {
    static final int SAFE = 204;
    static final int NO_ANSWER = 0;
    static final int BATCH_MAX = 100; // readings in one request: no more than the device's burst
    static final int BUFFER_MAX = 10_000; // readings that wait; then standard input does
    static final int BOOT_MAX = 50; // a key has 58 at most
    static final String END = "\n"; // no line is this one
    static final Set<Integer> AGAIN = Set.of(NO_ANSWER, 408, 429, 503, 504);
    static final Set<Integer> STOP = Set.of(403, 404, 405, 421); // without verdicts: certificate or address are wrong
    static final Charset BYTES = StandardCharsets.ISO_8859_1; // a reading is sent as it came, whatever its encoding
    static final Duration ANSWER_TIMEOUT = Duration.ofSeconds(15);
    static final long WAIT_MIN_MS = 1_000;
    static final long WAIT_MAX_MS = 300_000;

    // Of a problem. What is in neither list is safe.
    static final Pattern TOO_MUCH = Pattern.compile("\"code\":\\s*\"(too-many-records|body-too-large)\"");
    static final Pattern VERDICTS = Pattern.compile("\"records\":\\s*\\{");
    static final Pattern RETRY = Pattern.compile("\"retry\":\\s*\\[([^\\]]*)\\]");
    static final Pattern REJECTED = Pattern.compile("\\{[^{}]*\"index\"[^{}]*\\}");
    static final Pattern NUMBER = Pattern.compile("\\d+");
    static final Pattern INDEX = Pattern.compile("\"index\":\\s*(\\d+)");
    static final Pattern CODE = Pattern.compile("\"code\":\\s*\"([^\"]+)\"");

    final URI url;
    final SSLContext tls;
    final BlockingQueue<String> lines = new ArrayBlockingQueue<>(BUFFER_MAX);
    HttpClient client;
    boolean isOver, allSafe = true;

    record Answer(int status, long retryAfterMs, String problem) {}

    Buffer(String url, String ca, String certificate, String key) throws Exception {
        this.url = URI.create(url + "/v1/telemetry/records");
        this.tls = tls(ca, certificate, key);
        connect();
    }

    /** Opens its connection with the first request, keeps it, and opens another after a close. HTTP/2 where the server speaks it. */
    void connect() {
        client = HttpClient.newBuilder().sslContext(tls).connectTimeout(ANSWER_TIMEOUT).build();
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 5 || arguments[4].length() > BOOT_MAX)
            fail("usage: java Buffer.java URL CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most");
        Buffer buffer = null;
        try {
            buffer = new Buffer(arguments[0], arguments[1], arguments[2], arguments[3]);
        } catch (IOException | GeneralSecurityException | IllegalArgumentException error) {
            fail(error.toString());
        }
        new Thread(buffer::read).start();
        buffer.deliver(arguments[4]);
        System.exit(buffer.allSafe ? 0 : 1);
    }

    static void fail(String why) {
        System.err.println(why);
        System.exit(2);
    }

    void read() {
        try (var input = new BufferedReader(new InputStreamReader(System.in, BYTES))) {
            for (String line; (line = input.readLine()) != null; ) if (!line.isEmpty()) lines.put(line);
            lines.put(END);
        } catch (IOException | InterruptedException error) {
            System.err.println(error);
            System.exit(1);
        }
    }

    /** Waits for a reading where there is none, and takes those that wait with it. */
    void fill(List<String> batch, int size) throws InterruptedException {
        if (batch.isEmpty() && !isOver) batch.add(lines.take());
        lines.drainTo(batch, Math.max(size - batch.size(), 0));
        isOver |= batch.remove(END);
    }

    /** Sends all readings, until each is safe or refused for good. */
    void deliver(String boot) throws InterruptedException {
        var batch = new ArrayList<String>();
        int size = BATCH_MAX, number = 1, failures = 0;
        while (true) {
            fill(batch, size);
            if (batch.isEmpty()) return;
            var sent = List.copyOf(batch.subList(0, Math.min(size, batch.size())));
            String name = String.format("%s-%06d", boot, number);
            Answer answer = post(name, sent);
            if (TOO_MUCH.matcher(answer.problem).find() && sent.size() > 1) {
                size = sent.size() / 2;
                number++;
                continue;
            }
            var left = judge(name, answer, sent);
            if (STOP.contains(answer.status) && !VERDICTS.matcher(answer.problem).find()) return;
            if (left.size() < sent.size()) number++; // a key names readings by their place: others have another key
            batch.subList(0, sent.size()).clear();
            batch.addAll(0, left);
            if (left.isEmpty()) {
                failures = 0;
                continue;
            }
            long wait = Math.max(answer.retryAfterMs, backoffMs(failures++));
            System.err.printf("%s: %d, %d again in %.1f s%n", name, answer.status, left.size(), wait / 1000.0);
            Thread.sleep(wait);
        }
    }

    /** The readings to send again; those that are refused for good are told. */
    List<String> judge(String name, Answer answer, List<String> sent) {
        if (VERDICTS.matcher(answer.problem).find()) {
            for (var rejected = REJECTED.matcher(answer.problem); rejected.find(); )
                refuse(name, first(CODE, rejected.group()), sent.get(Integer.parseInt(first(INDEX, rejected.group()))));
            var left = new ArrayList<String>();
            var retry = NUMBER.matcher(first(RETRY, answer.problem));
            while (retry.find()) left.add(sent.get(Integer.parseInt(retry.group())));
            return left;
        }
        if (AGAIN.contains(answer.status)) return sent;
        String code = answer.status + " " + first(CODE, answer.problem);
        if (answer.status != SAFE) for (String reading : sent) refuse(name, code, reading);
        return List.of();
    }

    static String first(Pattern pattern, String text) {
        var found = pattern.matcher(text);
        return found.find() ? found.group(1) : "";
    }

    void refuse(String name, String code, String reading) {
        allSafe = false;
        System.err.printf("%s: refused, %s: %.100s%n", name, code, reading);
    }

    Answer post(String name, List<String> readings) throws InterruptedException {
        var request = HttpRequest.newBuilder(url).timeout(ANSWER_TIMEOUT)
            .header("content-type", "application/x-ndjson").header("content-encoding", "gzip").header("idempotency-key", name)
            .POST(HttpRequest.BodyPublishers.ofByteArray(gzip(String.join("\n", readings)))).build();
        try {
            var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            String seconds = answer.headers().firstValue("retry-after").filter(text -> text.matches("\\d{1,9}")).orElse("0");
            return new Answer(answer.statusCode(), Long.parseLong(seconds) * 1_000, answer.body());
        } catch (IOException error) {
            System.err.printf("%s: %s%n", name, error);
            connect(); // HTTP/2 would go on with a connection that a NAT has forgotten in silence
            return new Answer(NO_ANSWER, 0, "");
        }
    }

    static byte[] gzip(String text) {
        var body = new ByteArrayOutputStream();
        try (var encoder = new GZIPOutputStream(body)) {
            encoder.write(text.getBytes(BYTES));
        } catch (IOException error) {
            throw new UncheckedIOException(error); // memory does not fail
        }
        return body.toByteArray();
    }

    /** Doubled with each failure up to five minutes; spread, so that a fleet does not come back as one. */
    static long backoffMs(int failures) {
        long wait = Math.min(WAIT_MIN_MS << Math.min(failures, 16), WAIT_MAX_MS);
        return (long) (wait * ThreadLocalRandom.current().nextDouble(0.5, 1.5));
    }

    /** Trusts the authorities of the bundle and no other, and shows the device's certificate. HttpClient checks the server's name. */
    static SSLContext tls(String ca, String certificate, String key) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        int number = 0;
        for (var authority : certificates(ca)) store.setCertificateEntry("ca-" + number++, authority);
        if (number == 0) throw new IllegalArgumentException(ca + ": has no certificate");
        store.setKeyEntry("device", privateKey(key), new char[0], certificates(certificate));
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, new char[0]);
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        var context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    static java.security.cert.Certificate[] certificates(String file) throws Exception {
        try (var pem = Files.newInputStream(Path.of(file))) {
            return CertificateFactory.getInstance("X.509").generateCertificates(pem).toArray(java.security.cert.Certificate[]::new);
        }
    }

    /** PKCS#8, as `openssl req` and `forebay pki` write it; on an elliptic curve. */
    static PrivateKey privateKey(String file) throws Exception {
        String text = Files.readString(Path.of(file)).replaceAll("-----[A-Z ]+-----|\\s", "");
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(text)));
    }
}
