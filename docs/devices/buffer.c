/* Buffers lines of standard input as readings, and posts what waits in one request, gzipped, until each is safe or refused for good.
 *
 *     cc -o buffer buffer.c -lssl -lcrypto -lz
 *     buffer ingest.example.com 8443 ca.pem device.pem device.key boot-17 <readings
 *
 * The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or
 * files are wrong. Needs OpenSSL 1.1.1 or later, and zlib.
 */
#define _GNU_SOURCE
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

enum { SAFE = 204, NO_ANSWER = 0, ANSWER_TIMEOUT_S = 15, WAIT_MIN_MS = 1000, WAIT_MAX_MS = 300000, BOOT_MAX = 50 };
enum { BATCH_MAX = 100 }; /* readings in one request: no more than the device's burst */
enum { PROBLEM_BYTES_MAX = 32768 };

struct device { const char *host, *port; SSL_CTX *tls; SSL *connection; };
struct answer { int status; long retry_after_ms; char problem[PROBLEM_BYTES_MAX]; }; /* a problem without blanks */
struct batch { char *readings[BATCH_MAX]; int count; };

enum verdict { IS_SAFE, AGAIN, REFUSED };

static int is_retryable(int status) {
    return status == NO_ANSWER || status == 408 || status == 429 || status == 503 || status == 504;
}

/* The whole request is refused since the certificate or the address is wrong, for all others too. */
static int is_hopeless(const struct answer *answer) {
    const int status = answer->status;
    return (status == 403 || status == 404 || status == 405 || status == 421) && !strstr(answer->problem, "\"records\":{");
}

static int open_socket(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    const struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};
    int fd = -1;
    getaddrinfo(host, port, &hints, &list);
    for (struct addrinfo *at = list; at && fd < 0; at = at->ai_next) {
        if ((fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0) continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout); /* connect() as well */
        if (connect(fd, at->ai_addr, at->ai_addrlen) < 0) close(fd), fd = -1;
    }
    if (list) freeaddrinfo(list);
    return fd;
}

static void disconnect(struct device *device) {
    if (!device->connection) return;
    close(SSL_get_fd(device->connection));
    SSL_free(device->connection);
    device->connection = NULL;
}

static int connect_device(struct device *device) {
    int fd = open_socket(device->host, device->port);
    if (fd < 0) return 0;
    device->connection = SSL_new(device->tls);
    SSL_set_fd(device->connection, fd);
    SSL_set_tlsext_host_name(device->connection, device->host);
    SSL_set1_host(device->connection, device->host); /* the name that the server's certificate must have */
    return SSL_connect(device->connection) == 1;
}

static int read_line(SSL *connection, char *line, size_t size) { /* without its end; 0: lost, or too long */
    for (size_t length = 0; length < size && SSL_read(connection, line + length, 1) == 1; length++)
        if (line[length] == '\n') return line[length - (length && line[length - 1] == '\r')] = 0, 1;
    return 0;
}

static int read_problem(struct device *device, long length, char *problem) { /* without blanks; 0: lost, or too long */
    char byte;
    size_t kept = 0;
    for (; length > 0 && kept < PROBLEM_BYTES_MAX - 1 && SSL_read(device->connection, &byte, 1) == 1; length--)
        if (!strchr(" \t\r\n", byte)) problem[kept++] = byte;
    problem[kept] = 0;
    return length <= 0;
}

static void read_answer(struct device *device, struct answer *answer) {
    long length = 0, keep_alive = 1;
    char line[4096];
    if (!read_line(device->connection, line, sizeof line)) return;
    int status = atoi(strchr(line, ' ') ? strchr(line, ' ') : "");
    do {
        if (!read_line(device->connection, line, sizeof line)) return;
        if (!strncasecmp(line, "content-length:", 15)) length = atol(line + 15);
        if (!strncasecmp(line, "retry-after:", 12)) answer->retry_after_ms = atol(line + 12) * 1000;
        if (!strcasecmp(line, "connection: close")) keep_alive = 0;
        if (!strncasecmp(line, "transfer-encoding:", 18)) keep_alive = 0; /* its end is not looked for */
    } while (*line);
    if (!read_problem(device, length, answer->problem)) return; /* half of the verdicts are none */
    if (!keep_alive) disconnect(device);
    answer->status = status;
}

/* The readings as lines, gzipped; the caller frees them. */
static unsigned char *gzip(char **readings, int count, size_t *size) {
    z_stream stream = {0};
    size_t length = 0;
    for (int i = 0; i < count; i++) length += strlen(readings[i]) + 1;
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) abort();
    *size = deflateBound(&stream, length);
    unsigned char *body = malloc(*size);
    if (!body) abort();
    stream.next_out = body, stream.avail_out = *size;
    for (int i = 0; i < count; i++) {
        stream.next_in = (unsigned char *)readings[i], stream.avail_in = strlen(readings[i]);
        deflate(&stream, Z_NO_FLUSH);
        stream.next_in = (unsigned char *)"\n", stream.avail_in = 1;
        deflate(&stream, i + 1 < count ? Z_NO_FLUSH : Z_FINISH);
    }
    *size = stream.total_out;
    deflateEnd(&stream);
    return body;
}

static void post(struct device *device, const char *name, char **readings, int count, struct answer *answer) {
    char *head;
    size_t body_size;
    unsigned char *body = gzip(readings, count, &body_size);
    int head_size = asprintf(&head,
        "POST /v1/telemetry/records HTTP/1.1\r\nhost: %s:%s\r\ncontent-type: application/x-ndjson\r\n"
        "content-encoding: gzip\r\nidempotency-key: %s\r\ncontent-length: %zu\r\n\r\n",
        device->host, device->port, name, body_size);
    if (head_size < 0) abort();
    *answer = (struct answer){.status = NO_ANSWER};
    if (device->connection || connect_device(device))
        if (SSL_write(device->connection, head, head_size) == head_size)
            if (SSL_write(device->connection, body, body_size) == (int)body_size) read_answer(device, answer);
    if (answer->status == NO_ANSWER) disconnect(device);
    free(head);
    free(body);
}

static int is_too_much(const char *problem) {
    return strstr(problem, "\"code\":\"too-many-records\"") || strstr(problem, "\"code\":\"body-too-large\"");
}

static void refuse(const char *name, const char *code, const char *reading) {
    const char *text = strstr(code, "\"code\":\"");
    text = text ? text + 8 : "without a code";
    fprintf(stderr, "%s: refused, %.*s: %.100s\n", name, (int)strcspn(text, "\""), text, reading);
}

/* Of those in `retry` and in `rejected`, of which it tells: all others are safe. */
static void judge_each(const char *name, const char *records, char **readings, int count, enum verdict *verdicts) {
    const char *at = strstr(records, "\"retry\":[");
    for (at = at ? at + 8 : "]"; *at && *at != ']';) { /* at the bracket, or a comma */
        char *end;
        long index = strtol(++at, &end, 10);
        if (end > at && index >= 0 && index < count) verdicts[index] = AGAIN;
        at = end;
    }
    at = strstr(records, "\"rejected\":[");
    while (at && (at = strchr(at, '{'))) {
        const char *index = strstr(at, "\"index\":"), *end = strchr(at, '}');
        if (!index || !end || index > end) return;
        int place = atoi(index + 8);
        if (place >= 0 && place < count) verdicts[place] = REFUSED, refuse(name, at, readings[place]);
        at = end[1] == ',' ? end : NULL;
    }
}

static void judge(const char *name, const struct answer *answer, char **readings, int count, enum verdict *verdicts) {
    const char *records = strstr(answer->problem, "\"records\":{");
    enum verdict all = records || answer->status == SAFE ? IS_SAFE : is_retryable(answer->status) ? AGAIN : REFUSED;
    for (int i = 0; i < count; i++) {
        verdicts[i] = all;
        if (all == REFUSED) refuse(name, answer->problem, readings[i]);
    }
    if (records) judge_each(name, records, readings, count, verdicts);
}

/* Keeps what is to be sent again, in its place before the rest, and returns how many those are. */
static int forget(struct batch *batch, const enum verdict *verdicts, int count) {
    int left = 0, kept = 0;
    for (int i = 0; i < batch->count; i++) {
        if (i < count && verdicts[i] != AGAIN) {
            free(batch->readings[i]);
            continue;
        }
        left += i < count;
        batch->readings[kept++] = batch->readings[i];
    }
    batch->count = kept;
    return left;
}

static long backoff_ms(int failures) { /* doubled up to five minutes; spread, so that a fleet does not come back as one */
    unsigned char random[2];
    long wait = failures < 9 ? WAIT_MIN_MS << failures : WAIT_MAX_MS;
    if (RAND_bytes(random, sizeof random) != 1) abort();
    return (wait < WAIT_MAX_MS ? wait : WAIT_MAX_MS) * (500 + (random[0] << 8 | random[1]) % 1001) / 1000;
}

static SSL_CTX *tls(const char *ca, const char *certificate, const char *key) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    if (!SSL_CTX_load_verify_locations(context, ca, NULL) || !SSL_CTX_use_certificate_chain_file(context, certificate) ||
        !SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM)) {
        fprintf(stderr, "%s, %s or %s cannot be used:\n", ca, certificate, key);
        ERR_print_errors_fp(stderr);
        exit(2);
    }
    return context;
}

static int has_input(void) {
    return poll(&(struct pollfd){.fd = STDIN_FILENO, .events = POLLIN}, 1, 0) > 0;
}

static void take(struct batch *batch, int size) { /* waits for a reading where there is none, and takes those that wait with it */
    while (batch->count < size && !feof(stdin) && (batch->count == 0 || has_input())) {
        char *reading = NULL;
        size_t room = 0;
        ssize_t length = getline(&reading, &room, stdin);
        if (length > 0) reading[strcspn(reading, "\r\n")] = 0;
        if (length > 0 && *reading)
            batch->readings[batch->count++] = reading;
        else
            free(reading);
    }
}

static int deliver(struct device *device, const char *boot) { /* sends all readings; whether all of them are safe */
    static struct answer answer;
    struct batch batch = {.count = 0};
    enum verdict verdicts[BATCH_MAX];
    int size = BATCH_MAX, failures = 0, all_safe = 1;
    char name[BOOT_MAX + 24];
    for (long number = 1; take(&batch, size), batch.count > 0;) {
        int count = batch.count < size ? batch.count : size;
        snprintf(name, sizeof name, "%s-%06ld", boot, number);
        post(device, name, batch.readings, count, &answer);
        if (is_too_much(answer.problem) && count > 1) {
            size = count / 2, number++;
            continue;
        }
        judge(name, &answer, batch.readings, count, verdicts);
        for (int i = 0; i < count; i++) all_safe &= verdicts[i] != REFUSED;
        if (is_hopeless(&answer)) return 0;
        int left = forget(&batch, verdicts, count);
        if (left < count) number++; /* a key names readings by their place: others have another key */
        if (left == 0) {
            failures = 0;
            continue;
        }
        long wait = backoff_ms(failures++);
        if (wait < answer.retry_after_ms) wait = answer.retry_after_ms;
        fprintf(stderr, "%s: %d, %d again in %.1f s\n", name, answer.status, left, wait / 1000.0);
        nanosleep(&(struct timespec){wait / 1000, wait % 1000 * 1000000}, NULL);
    }
    return all_safe;
}

int main(int count, char **arguments) {
    if (count != 7 || strlen(arguments[6]) > BOOT_MAX)
        return fputs("usage: buffer HOST PORT CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most\n", stderr), 2;
    signal(SIGPIPE, SIG_IGN); /* a lost connection is an answer that did not come, not the end */
    setvbuf(stdin, NULL, _IONBF, 0); /* what waits is in the pipe, where poll() sees it */
    struct device device = {arguments[1], arguments[2], tls(arguments[3], arguments[4], arguments[5]), NULL};
    int all_safe = deliver(&device, arguments[6]);
    disconnect(&device);
    return all_safe ? 0 : 1;
}
