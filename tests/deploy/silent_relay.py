"""A relay between devices and a gateway that can go silent, as a NAT does that has forgotten a connection: what comes is swallowed,
and neither side is told. On loopback; bytes are acknowledged by the kernel, which is worse than a NAT for whoever counts on TCP."""

import socket
import threading


class SilentRelay:
    """Accepts connections and carries each to `port`. `swallow` silences those that there are, and the next `more`."""

    def __init__(self, port):
        self.upstream, self.connections, self.more = port, [], 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self, more=0):
        self.more = more
        for connection in self.connections:
            connection.is_silent = True

    def stop(self):
        self.listener.close()
        for connection in self.connections:
            connection.close()

    def _accept(self):
        while True:
            try:
                device, _ = self.listener.accept()
            except OSError:
                return
            is_silent, self.more = self.more > 0, max(self.more - 1, 0)
            try:
                self.connections.append(Connection(device, self.upstream, is_silent))
            except ConnectionRefusedError:
                device.close()  # there is no gateway, as a balancer shows it


class Connection:
    def __init__(self, device, port, is_silent):
        self.is_silent = is_silent
        self.device, self.gateway = device, socket.create_connection(("127.0.0.1", port))
        for source, sink in ((self.device, self.gateway), (self.gateway, self.device)):
            threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source, sink):
        try:
            while data := source.recv(65536):
                if not self.is_silent:
                    sink.sendall(data)
            if not self.is_silent:
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.device.close()
        self.gateway.close()
