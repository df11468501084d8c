"""A service that greets: run it, then client.py, or `shoal call greeter Greeter.Hello`."""

from greeter import Greeter

import shoal

service = shoal.Service("greeter", metadata={"type": "helloworld"})

if __name__ == "__main__":
    service.init()
    service.handle(Greeter())
    service.run()
