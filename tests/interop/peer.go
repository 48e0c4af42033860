package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
)

// One configuration, given as JSON; the field names are those of the tests.
type spec struct {
	Role, Address, Cert, Key, Ca string
	Version                      uint16
	Groups                       []tls.CurveID
	Alpn                         []string
	ClientAuth                   bool
	Count                        int
}

func must(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func config(s spec) *tls.Config {
	c := &tls.Config{
		MinVersion: s.Version, MaxVersion: s.Version, CurvePreferences: s.Groups, NextProtos: s.Alpn,
		ServerName: "testserver", ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
	if s.Cert != "" {
		pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
		must(err)
		c.Certificates = []tls.Certificate{pair}
	}
	if s.Ca != "" {
		pem, err := os.ReadFile(s.Ca)
		must(err)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		c.RootCAs, c.ClientCAs = pool, pool
	}
	if s.ClientAuth {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c
}

func report(c *tls.Conn) {
	st := c.ConnectionState()
	fmt.Println("ok", st.DidResume, st.NegotiatedProtocol, len(st.PeerCertificates))
}

func echo(c *tls.Conn) {
	defer c.Close()
	if err := c.Handshake(); err != nil {
		fmt.Println("error:", err)
		return
	}
	report(c)
	lines := bufio.NewReader(c)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprint(c, line)
	}
}

func main() {
	var s spec
	must(json.Unmarshal([]byte(os.Args[1]), &s))
	c := config(s)
	if s.Role == "server" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		fmt.Println(listener.Addr().(*net.TCPAddr).Port)
		for {
			raw, err := listener.Accept()
			must(err)
			go echo(tls.Server(raw, c))
		}
	}
	for i := 0; i < s.Count; i++ {
		conn, err := tls.Dial("tcp", s.Address, c)
		must(err)
		fmt.Fprint(conn, "from the peer\n")
		line, err := bufio.NewReader(conn).ReadString('\n')
		must(err)
		report(conn)
		fmt.Print(line)
		conn.Close()
	}
}
