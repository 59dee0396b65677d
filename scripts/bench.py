"""`make bench`: measures and prints all figures, and stores them in build/bench.json."""

from sliceforge.sim.bench import main

if __name__ == "__main__":
    main()
