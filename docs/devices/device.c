/* Posts each line of standard input as one reading, in order, and each until it is safe or refused for good.
 *
 *     cc -o device device.c -lssl -lcrypto
 *     device ingest.example.com 8443 ca.pem device.pem device.key boot-17 <readings
 *
 * The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or
 * files are wrong. Needs OpenSSL 1.1.1 or later.
 */
#define _GNU_SOURCE
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SAFE = 204, NO_ANSWER = 0, ANSWER_TIMEOUT_S = 15, WAIT_MIN_MS = 1000, WAIT_MAX_MS = 300000, BOOT_MAX = 50 };

struct device { const char *host, *port; SSL_CTX *tls; SSL *connection; };
struct answer { int status; long retry_after_ms; };

static int is_retryable(int status) { /* the same reading again, under the same key */
    return status == NO_ANSWER || status == 408 || status == 429 || status == 503 || status == 504;
}

static int is_hopeless(int status) { /* the certificate or the address is wrong, for the next reading too */
    return status == 403 || status == 404 || status == 405 || status == 421;
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

static struct answer read_answer(struct device *device) {
    struct answer answer = {NO_ANSWER, 0};
    long length = 0, keep_alive = 1;
    char line[4096], byte;
    if (!read_line(device->connection, line, sizeof line)) return answer;
    int status = atoi(strchr(line, ' ') ? strchr(line, ' ') : "");
    do {
        if (!read_line(device->connection, line, sizeof line)) return answer;
        if (!strncasecmp(line, "content-length:", 15)) length = atol(line + 15);
        if (!strncasecmp(line, "retry-after:", 12)) answer.retry_after_ms = atol(line + 12) * 1000;
        if (!strcasecmp(line, "connection: close")) keep_alive = 0;
        if (!strncasecmp(line, "transfer-encoding:", 18)) keep_alive = 0; /* its end is not looked for */
    } while (*line);
    while (keep_alive && length > 0 && SSL_read(device->connection, &byte, 1) == 1) length--;
    if (!keep_alive || length > 0) disconnect(device);
    answer.status = status;
    return answer;
}

static struct answer post(struct device *device, const char *name, const char *reading) {
    struct answer answer = {NO_ANSWER, 0};
    char *request;
    int size = asprintf(&request,
        "POST /v1/telemetry HTTP/1.1\r\nhost: %s:%s\r\ncontent-type: application/json\r\n"
        "idempotency-key: %s\r\ncontent-length: %zu\r\n\r\n%s",
        device->host, device->port, name, strlen(reading), reading);
    if (size < 0) abort();
    if (device->connection || connect_device(device))
        if (SSL_write(device->connection, request, size) == size) answer = read_answer(device);
    if (answer.status == NO_ANSWER) disconnect(device);
    free(request);
    return answer;
}

static long backoff_ms(int failures) { /* doubled up to five minutes; spread, so that a fleet does not come back as one */
    unsigned char random[2];
    long wait = failures < 9 ? WAIT_MIN_MS << failures : WAIT_MAX_MS;
    if (RAND_bytes(random, sizeof random) != 1) abort();
    return (wait < WAIT_MAX_MS ? wait : WAIT_MAX_MS) * (500 + (random[0] << 8 | random[1]) % 1001) / 1000;
}

static int deliver(struct device *device, const char *name, const char *reading) { /* returns the final answer */
    for (int failures = 0;; failures++) {
        struct answer answer = post(device, name, reading);
        if (!is_retryable(answer.status)) return answer.status;
        long wait = backoff_ms(failures);
        if (wait < answer.retry_after_ms) wait = answer.retry_after_ms;
        fprintf(stderr, "%s: %d, again in %.1f s\n", name, answer.status, wait / 1000.0);
        nanosleep(&(struct timespec){wait / 1000, wait % 1000 * 1000000}, NULL);
    }
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

int main(int count, char **arguments) {
    if (count != 7 || strlen(arguments[6]) > BOOT_MAX)
        return fputs("usage: device HOST PORT CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most\n", stderr), 2;
    signal(SIGPIPE, SIG_IGN); /* a lost connection is an answer that did not come, not the end */
    struct device device = {arguments[1], arguments[2], tls(arguments[3], arguments[4], arguments[5]), NULL};
    char *reading = NULL, *name;
    size_t room = 0;
    int all_safe = 1;
    ssize_t length;
    for (long sequence = 1; (length = getline(&reading, &room, stdin)) > 0; sequence++) {
        if (reading[length - 1] == '\n') reading[length - 1] = 0;
        if (asprintf(&name, "%s-%06ld", arguments[6], sequence) < 0) abort();
        int status = deliver(&device, name, reading);
        if (status != SAFE) all_safe = 0, fprintf(stderr, "%s: refused, %d\n", name, status);
        free(name);
        if (is_hopeless(status)) break;
    }
    disconnect(&device);
    return all_safe ? 0 : 1;
}
