"""Drives one of the SDKs for Python in a process of its own, with the versions that PYTHONPATH names.

python drive_python.py SDK URL WRITE_KEY ROUNDS FLUSH_AT PAUSE_MS GZIP
"""

import json
import sys
import time

sdk, url, write_key, rounds, flush_at, pause_ms, gzip = sys.argv[1:]
errors: list[str] = []


def note(error: Exception, batch: object) -> None:
    errors.append(f"{type(error).__name__} {getattr(error, 'status', '')}")


if sdk == "segment":
    from segment.analytics.client import Client

    client = Client(
        write_key, host=url, gzip=gzip == "true", upload_size=int(flush_at), upload_interval=0.05, on_error=note,
        max_retries=20,
    )  # fmt: skip
else:
    from rudderstack.analytics.client import Client

    client = Client(
        write_key, host=url, gzip=gzip == "true", upload_size=int(flush_at), upload_interval=0.05, on_error=note,
        max_retries=20,
    )  # fmt: skip

for number in range(int(rounds)):
    user = f"py-user-{number}"
    client.identify(user, {"email": f"py-{number}@example.com", "firstName": "Zoë"})
    viewed = {"product_id": "sku-1", "price": 12.5, "currency": "EUR"}
    client.track(user, "Product Viewed", viewed)
    client.page(user, "shop", "Home", {"path": "/"})
    client.screen(user, "app", "Basket")
    client.group(user, "g-1", {"plan": "pro"})
    client.alias(f"py-before-{number}", user)
    time.sleep(int(pause_ms) / 1000)
client.flush()
client.shutdown()
print(json.dumps({"requests": [], "errors": errors}))
