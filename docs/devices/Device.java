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
import java.util.concurrent.ThreadLocalRandom;
import javax.net.ssl.*;

/**
 * Posts each line of standard input as one reading, in order, and each until it is safe or refused for good.
 *
 * <pre>java Device.java https://ingest.example.com:8443 ca.pem device.pem device.key boot-17 &lt;readings</pre>
 *
 * The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or
 * files are wrong.
 */
public class Device {
    static final int SAFE = 204;
    static final int NO_ANSWER = 0;
    static final int BOOT_MAX = 50; // a key has 64 at most
    static final Set<Integer> AGAIN = Set.of(NO_ANSWER, 408, 429, 503, 504); // the same reading, under the same key
    static final Set<Integer> STOP = Set.of(403, 404, 405, 421); // certificate or address are wrong, for the next one too
    static final Charset BYTES = StandardCharsets.ISO_8859_1; // a reading is sent as it came, whatever its encoding
    static final Duration ANSWER_TIMEOUT = Duration.ofSeconds(15);
    static final long WAIT_MIN_MS = 1_000;
    static final long WAIT_MAX_MS = 300_000;

    final URI url;
    final SSLContext tls;
    HttpClient client;

    record Answer(int status, long retryAfterMs) {}

    Device(String url, String ca, String certificate, String key) throws Exception {
        this.url = URI.create(url + "/v1/telemetry");
        this.tls = tls(ca, certificate, key);
        connect();
    }

    /** Opens its connection with the first request, keeps it, and opens another after a close. HTTP/2 where the server speaks it. */
    void connect() {
        client = HttpClient.newBuilder().sslContext(tls).connectTimeout(ANSWER_TIMEOUT).build();
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 5 || arguments[4].length() > BOOT_MAX)
            fail("usage: java Device.java URL CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most");
        Device device = null;
        try {
            device = new Device(arguments[0], arguments[1], arguments[2], arguments[3]);
        } catch (IOException | GeneralSecurityException | IllegalArgumentException error) {
            fail(error.toString());
        }
        var lines = new BufferedReader(new InputStreamReader(System.in, BYTES));
        boolean allSafe = true;
        int sequence = 1;
        for (String line; (line = lines.readLine()) != null; sequence++) {
            String name = String.format("%s-%06d", arguments[4], sequence);
            int status = device.deliver(name, line);
            if (status != SAFE) {
                allSafe = false;
                System.err.printf("%s: refused, %d%n", name, status);
            }
            if (STOP.contains(status)) break;
        }
        System.exit(allSafe ? 0 : 1);
    }

    static void fail(String why) {
        System.err.println(why);
        System.exit(2);
    }

    /** Sends a reading until the answer is final, and returns that. */
    int deliver(String name, String reading) throws InterruptedException {
        for (int failures = 0; ; failures++) {
            Answer answer = post(name, reading);
            if (!AGAIN.contains(answer.status)) return answer.status;
            long wait = Math.max(answer.retryAfterMs, backoffMs(failures));
            System.err.printf("%s: %d, again in %.1f s%n", name, answer.status, wait / 1000.0);
            Thread.sleep(wait);
        }
    }

    Answer post(String name, String reading) throws InterruptedException {
        var request = HttpRequest.newBuilder(url).timeout(ANSWER_TIMEOUT)
            .header("content-type", "application/json").header("idempotency-key", name)
            .POST(HttpRequest.BodyPublishers.ofString(reading, BYTES)).build();
        try {
            var answer = client.send(request, HttpResponse.BodyHandlers.discarding());
            String seconds = answer.headers().firstValue("retry-after").filter(text -> text.matches("\\d{1,9}")).orElse("0");
            return new Answer(answer.statusCode(), Long.parseLong(seconds) * 1_000);
        } catch (IOException error) {
            System.err.printf("%s: %s%n", name, error);
            connect(); // HTTP/2 would go on with a connection that a NAT has forgotten in silence
            return new Answer(NO_ANSWER, 0);
        }
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
