"""An HTTP proxy that shows a person's credential to sites, with the connections secured by the pool: what `tlspool proxy` does.

Theory of operation
-------------------
    rules          who is meant by a request, and what is to happen with it
    wire           HTTP/1.1 over a socket; the grammar is that of the library h11
    upstream       connections to sites, with TLS through the pool or without
    forward        one request and its response, in both directions at once
    conversation   the requests of one client, one after the other
    pages          what the proxy itself has to say
    server         listens, and lays TLS between the browser and itself

A browser asks for `CONNECT site:443`.  For a configured destination the proxy is the site towards the browser, by a certificate that the
pool makes on the fly, and a client of the site with the person's credential; every request is read, and written anew.  Both
sessions are bound to their keys (KEY_BOUND): when the token is pulled they end, and the next request is answered with a page that says
so.  Other sites get their bytes passed on unseen, or are refused.
"""
