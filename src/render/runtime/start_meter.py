# Starts the meter, if it is mounted and is the one that Laurel wrote. Argument: its SHA-256; others may follow.
import hashlib, os, sys, types

digest = sys.argv.pop(1)
try:
    with open("/etc/laurel/meter/laurel_meter.py", "rb") as file:
        source = file.read()
    if hashlib.sha256(source).hexdigest() != digest:
        raise ImportError("the meter is not the one that Laurel wrote")
    meter = types.ModuleType("laurel_meter")
    exec(compile(source, "laurel_meter.py", "exec"), meter.__dict__)
    meter.install()
except FileNotFoundError:
    pass
except Exception as error:
    print("laurel: requests are not counted:", repr(error), file=sys.stderr, flush=True)

