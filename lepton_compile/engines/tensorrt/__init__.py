"""What TensorRT-RTX and TensorRT 11 have in common: the same builder behind two package names.

``build`` runs in our process: it plans profiles, checks what can be checked from the graph, writes
the ONNX file and starts ``child``, a process of its own that loads the library, parses and builds.
The library ends a process that it does not like (``std::terminate``) and keeps its memory; in a
child, the first becomes an EngineError and the second goes back to the machine.
"""
