"""D3HR (Zhao et al., ICML 2025, arXiv 2505.18399)."""
