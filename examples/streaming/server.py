"""A service that streams: run it, then client.py."""

from words import Words

import shoal

if __name__ == "__main__":
    service = shoal.Service("words")
    service.init()
    service.handle(Words())
    service.run()
