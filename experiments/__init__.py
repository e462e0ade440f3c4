"""Launch scripts, configs, demonstrations, benchmarks and results built on ilx."""
