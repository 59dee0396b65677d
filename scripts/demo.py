"""`make demo`: a layer of a real network on the simulated RTL, compared with the golden model."""

from sliceforge.sim.demo import main

if __name__ == "__main__":
    main()
