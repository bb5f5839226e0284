// Posts each line of standard input as one reading, in order, and each until it is safe or refused for good.
//
//	go build -o device device.go
//	device https://ingest.example.com:8443 ca.pem device.pem device.key boot-17 <readings
//
// The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or files
// are wrong.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
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
	bootMax       = 50 // a key has 64 at most
)

var (
	// The same reading again, under the same key.
	again = map[int]bool{noAnswer: true, 408: true, 429: true, 503: true, 504: true}
	// The certificate or the address is wrong, for the next reading too.
	stop = map[int]bool{403: true, 404: true, 405: true, 421: true}
)

type device struct {
	url    string
	tls    *tls.Config
	client *http.Client
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 6 || len(os.Args[5]) > bootMax {
		fail("usage: device URL CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most")
	}
	config, err := newConfig(os.Args[2], os.Args[3], os.Args[4])
	if err != nil {
		fail(err)
	}
	device := &device{url: os.Args[1] + "/v1/telemetry", tls: config}
	device.connect()
	boot, allSafe := os.Args[5], true
	input := bufio.NewReader(os.Stdin)
	for sequence := 1; ; sequence++ {
		line, err := input.ReadBytes('\n') // of any length
		if len(line) == 0 && err == io.EOF {
			break
		}
		if err != nil && err != io.EOF {
			log.Fatal(err)
		}
		name := fmt.Sprintf("%s-%06d", boot, sequence)
		status := device.deliver(name, bytes.TrimSuffix(line, []byte{'\n'}))
		if status != http.StatusNoContent {
			allSafe = false
			log.Printf("%s: refused, %d", name, status)
		}
		if stop[status] {
			break
		}
	}
	if !allSafe {
		os.Exit(1)
	}
}

func fail(why any) {
	log.Print(why)
	os.Exit(2)
}

func newConfig(ca, certificate, key string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New(ca + ": has no certificate")
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, nil
}

// connect makes a client, which opens its connection with the first request, keeps it, and opens another after a close. It speaks
// HTTP/2 where the server does.
func (d *device) connect() {
	transport := &http.Transport{TLSClientConfig: d.tls.Clone(), ForceAttemptHTTP2: true}
	d.client = &http.Client{Transport: transport, Timeout: answerTimeout}
}

// deliver sends a reading until the answer is final, and returns that.
func (d *device) deliver(name string, reading []byte) int {
	for failures := 0; ; failures++ {
		status, wait := d.post(name, reading)
		if !again[status] {
			return status
		}
		if own := backoff(failures); wait < own {
			wait = own
		}
		log.Printf("%s: %d, again in %.1f s", name, status, wait.Seconds())
		time.Sleep(wait)
		if status == noAnswer {
			// HTTP/2 would go on with a connection that a NAT has forgotten in silence.
			d.client.CloseIdleConnections()
			d.connect()
		}
	}
}

// post returns the status, or noAnswer, and Retry-After.
func (d *device) post(name string, reading []byte) (int, time.Duration) {
	request, err := http.NewRequest(http.MethodPost, d.url, bytes.NewReader(reading))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", name)
	answer, err := d.client.Do(request)
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
