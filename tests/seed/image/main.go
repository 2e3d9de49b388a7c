// Command image is what runs in the containers that the seed's scripts start: under one name it greets, as the
// image hello-world does, under another it answers on port 9443 as a Portainer that nobody has set up yet.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

func main() {
	if filepath.Base(os.Args[0]) == "hello" {
		fmt.Println("Hello from Docker!")
		return
	}
	certificate, err := selfSigned()
	if err != nil {
		log.Fatal(err)
	}
	// Its data is a volume: what it keeps outlives the container.
	if err := os.WriteFile("/data/portainer.key", []byte("kept\n"), 0o600); err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/system/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"Version":"2.39.6","InstanceID":"00000000-0000-4000-8000-000000000910"}`)
	})
	server := http.Server{
		Addr:      ":9443",
		Handler:   mux,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	log.Fatal(server.ListenAndServeTLS("", ""))
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		DNSNames:     []string{"portainer"},
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
