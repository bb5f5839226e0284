// Posts each line of standard input as one reading, in order, and each until it is safe or refused for good.
//
//	device https://ingest.example.com:8443 ca.pem device.pem device-key.pem boot-17 <readings
//
// The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"time"
)

const (
	answerTimeout = 15 * time.Second
	waitMin       = time.Second
	waitMax       = 5 * time.Minute
	noAnswer      = 0
)

var (
	// The same reading again, under the same key.
	again = map[int]bool{noAnswer: true, 408: true, 429: true, 503: true, 504: true}
	// The certificate or the address is wrong, for the next reading too.
	stop = map[int]bool{403: true, 404: true, 405: true, 421: true}
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 6 {
		log.Fatal("usage: device URL CA CERTIFICATE KEY BOOT <readings")
	}
	url, boot := os.Args[1]+"/v1/telemetry", os.Args[5]
	client, err := newClient(os.Args[2], os.Args[3], os.Args[4])
	if err != nil {
		log.Fatal(err)
	}
	allSafe := true
	lines := bufio.NewScanner(os.Stdin)
	for sequence := 1; lines.Scan(); sequence++ {
		name := fmt.Sprintf("%s-%06d", boot, sequence)
		status := deliver(client, url, name, lines.Bytes())
		if status != http.StatusNoContent {
			allSafe = false
			log.Printf("%s: refused, %d", name, status)
		}
		if stop[status] {
			break
		}
	}
	if !allSafe || lines.Err() != nil {
		os.Exit(1)
	}
}

// The client keeps its connection and connects anew after a close. It speaks HTTP/2 where the server does.
func newClient(ca, certificate, key string) (*http.Client, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	return &http.Client{Transport: transport, Timeout: answerTimeout}, nil
}

// deliver sends a reading until the answer is final, and returns that.
func deliver(client *http.Client, url, name string, reading []byte) int {
	for failures := 0; ; failures++ {
		status, wait := post(client, url, name, reading)
		if !again[status] {
			return status
		}
		if own := backoff(failures); wait < own {
			wait = own
		}
		log.Printf("%s: %d, again in %.1f s", name, status, wait.Seconds())
		time.Sleep(wait)
	}
}

// post returns the status, or noAnswer, and Retry-After.
func post(client *http.Client, url, name string, reading []byte) (int, time.Duration) {
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(reading))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", name)
	answer, err := client.Do(request)
	if err != nil {
		log.Printf("%s: %v", name, err)
		return noAnswer, 0
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, answer.Body) // to the end, or the connection cannot be used again
	seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
	return answer.StatusCode, time.Duration(seconds) * time.Second
}

// backoff is doubled with each failure up to five minutes; and spread, so that a fleet does not come back as one.
func backoff(failures int) time.Duration {
	wait := waitMax
	if failures < 9 && waitMin<<failures < waitMax {
		wait = waitMin << failures
	}
	return time.Duration(float64(wait) * (0.5 + rand.Float64()))
}
