from xray import script

if __name__ == "__main__":
    with script.native_stderr_closed():  # Keras is imported, and TensorFlow would greet
        script.start_keras()
        from .pages import main
    script.run(main)
