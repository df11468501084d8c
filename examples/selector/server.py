"""A service that says which of its versions answers. Start several:

python server.py --server_version 1.0.0 --server_metadata zone=a
python server.py --server_version 2.0.0 --server_metadata zone=a
python server.py --server_version 2.0.0 --server_metadata zone=b
"""

import shoal


class Place:
    """Tells where it is."""

    def __init__(self, options: shoal.Options) -> None:
        self._text = f"version {options.version} in zone {options.metadata.get('zone', '?')}"

    async def where(self) -> str:
        return self._text


if __name__ == "__main__":
    service = shoal.Service("place")
    service.init()
    service.handle(Place(service.options))
    service.run()
