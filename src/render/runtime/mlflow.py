# Runs uvicorn. Arguments: those of its command.
try:
    from uvicorn.main import main
except ImportError:
    # The command may belong to another Python than this one.
    os.execvp("uvicorn", ["uvicorn", *sys.argv[1:]])
sys.argv[0] = "uvicorn"
sys.exit(main())
