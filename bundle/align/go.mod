module bivouac.dev/bundle/align

go 1.26.0
