// One configuration, given as JSON; the field names are those of the tests.
const fs = require('fs');
const tls = require('tls');

const s = JSON.parse(process.argv[2]);
const read = (path) => (path ? fs.readFileSync(path) : undefined);
const version = { 771: 'TLSv1.2', 772: 'TLSv1.3' }[s.Version];
const options = {
  minVersion: version, maxVersion: version, cert: read(s.Cert), key: read(s.Key), ca: read(s.Ca),
  ALPNProtocols: s.Alpn.length ? s.Alpn : undefined, requestCert: s.ClientAuth, rejectUnauthorized: s.Role === 'client' || s.ClientAuth,
  ecdhCurve: 'X25519MLKEM768:X25519:P-256:P-384:P-521',
};

const complain = (error) => console.log('error:', error.message);

function report(socket) {
  const shown = socket.getPeerCertificate();
  console.log('ok', socket.isSessionReused(), socket.alpnProtocol || '', shown && shown.raw ? 1 : 0);
}

if (s.Role === 'server') {
  const server = tls.createServer(options, (socket) => {
    report(socket);
    socket.on('error', complain);
    socket.pipe(socket);
  });
  server.on('tlsClientError', complain);
  server.listen(0, '127.0.0.1', () => console.log(server.address().port));
} else {
  const [host, port] = s.Address.split(':');
  const visit = (left, session) => {
    let latest = session;
    const socket = tls.connect({ host, port, servername: 'testserver', session, ...options }, () => {
      socket.write('from the peer\n');
    });
    socket.on('session', (data) => { latest = data; });
    socket.on('error', complain);
    socket.on('data', (data) => {
      report(socket);
      console.log(data.toString().trim());
      socket.destroy();
      if (left > 1) visit(left - 1, latest);
    });
  };
  visit(s.Count);
}
