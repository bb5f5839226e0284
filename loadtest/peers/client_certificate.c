/* Gives h2load, which knows no client certificates, one to show: preloaded, it puts the certificate and the key that
 * CLIENT_CERTIFICATE and CLIENT_KEY name (PEM files) into every TLS context that the program makes.
 *
 *     cc -shared -fPIC -o client_certificate.so client_certificate.c -lssl
 *     LD_PRELOAD=./client_certificate.so CLIENT_CERTIFICATE=device.pem CLIENT_KEY=device.key h2load ...
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>

SSL_CTX *SSL_CTX_new(const SSL_METHOD *method) {
    SSL_CTX *(*make)(const SSL_METHOD *) = (SSL_CTX * (*)(const SSL_METHOD *)) dlsym(RTLD_NEXT, "SSL_CTX_new");
    SSL_CTX *context = make(method);
    const char *certificate = getenv("CLIENT_CERTIFICATE"), *key = getenv("CLIENT_KEY");
    if (!context || !certificate || !key || SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    return context;
}
