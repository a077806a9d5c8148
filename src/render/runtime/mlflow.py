# Runs uvicorn with the meter, if that is mounted. Arguments: those of the command `uvicorn`.
import os, sys

sys.path.append("/etc/laurel/meter")
try:
    import laurel_meter

    laurel_meter.install()
except Exception as error:
    if getattr(error, "name", None) != "laurel_meter":
        print("laurel: requests are not counted:", repr(error), file=sys.stderr, flush=True)

try:
    from uvicorn.main import main
except ImportError:
    # The command may belong to another Python than this one.
    os.execvp("uvicorn", ["uvicorn", *sys.argv[1:]])
sys.argv[0] = "uvicorn"
sys.exit(main())
