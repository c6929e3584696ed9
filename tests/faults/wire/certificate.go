// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"sync/atomic"
	"time"
)

// certificates are two that a server may show: one that is good, and one that expired
// an hour ago.
type certificates struct {
	expired atomic.Bool
	trusted []byte // both, in PEM: what is wrong with the other is its time
	shown   func() // is called when the expired one is
}

// make makes both, and returns how to serve with them.
func (c *certificates) make() (*tls.Config, error) {
	good, err := c.issue(time.Now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	old, err := c.issue(time.Now().Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		NextProtos: []string{"h2"},
		// Two that are asked for in turn: a resumed session would show none.
		SessionTicketsDisabled: true,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			shown := good
			if c.expired.Load() {
				shown = old
				c.shown()
			}
			return &tls.Config{Certificates: []tls.Certificate{shown}, NextProtos: []string{"h2"}, SessionTicketsDisabled: true}, nil
		},
	}, nil
}

// issue makes a certificate that signs itself.
func (c *certificates) issue(until time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(until.Unix()), Subject: pkix.Name{CommonName: "API server"},
		NotBefore: until.Add(-24 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:        true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	c.trusted = append(c.trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
