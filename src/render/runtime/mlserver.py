# Starts MLServer with what its own settings cannot say.
# Arguments: the seconds that requests have to end, and that an idle connection stays open, then response headers as Name:value.
import functools, uvicorn
from mlserver import MLServer
from mlserver.cli.main import main

seconds, idle, *headers = sys.argv[1:]
uvicorn.Config = functools.partial(
    uvicorn.Config,
    headers=[tuple(header.split(":", 1)) for header in headers],
    timeout_graceful_shutdown=int(seconds),
    timeout_keep_alive=int(idle),
)

stop = MLServer.stop


# Without a signal, MLServer stops itself because the model cannot be loaded, and exits with 0.
async def stop_or_fail(self, sig=None):
    if sig is None:
        sys.stdout.flush()
        print("the model cannot be loaded:", repr(sys.exc_info()[1]), file=sys.stderr, flush=True)
        os._exit(1)
    await stop(self, sig)


MLServer.stop = stop_or_fail
# There is no folder: the model stands in the environment.
sys.argv[1:] = ["start", "/nonexistent"]
main()
